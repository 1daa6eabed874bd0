"""From a source to shards, and what checks, joins and fetches them."""
