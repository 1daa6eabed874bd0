"""One engine of stages, one short file per method, recipes, evaluation and prediction."""
