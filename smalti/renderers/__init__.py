"""render(), its float64 specification (oracle) and the engine."""
