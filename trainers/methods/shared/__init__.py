"""What several methods share: targets of weak views, mixing, dropped features, labeled losses."""
