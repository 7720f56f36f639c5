"""The worker's web address: the page, the JSON behind it, /metrics, health."""
