"""Smalti's primitive families as methods of nerfstudio (`nerfstudio.method_configs`); see the README."""
