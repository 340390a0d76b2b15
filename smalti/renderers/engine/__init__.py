"""The engine: one kernel source, compiled ahead for CPUs (a library per instruction set) and by NVRTC for CUDA."""

from smalti.renderers.engine.library import EngineError, arena_bytes, get_threads, set_threads

__all__ = ["EngineError", "arena_bytes", "get_threads", "set_threads"]
