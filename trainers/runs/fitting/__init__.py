"""How `warpseg fit` divides time and memory, and what it has done."""
