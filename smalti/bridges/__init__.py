"""Bridges to packages that people already have: one module each, which imports its package where it is used.

They may use scene, files, primitives, renderers and cameras; nothing imports them.
"""
