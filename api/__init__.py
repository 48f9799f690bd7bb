"""The HTTP service. It knows core, never torch: what needs torch runs in an isolated child."""
