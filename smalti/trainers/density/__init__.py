"""Density control: rules that change the number of primitives, written against the family protocol, one file each."""
