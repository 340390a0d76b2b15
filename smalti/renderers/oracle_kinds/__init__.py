"""The specification of the general compositor in plain torch: `docs/kinds.md` line by line, one file per kind.

Each kind says what it does to each ray (`events.Kind`); `order` sorts that, `accumulate` composites it, `picture` makes
the frame. All of it is flat lists of (pixel, primitive) pairs: what does not happen is dropped by index before the
mathematics that would fail, so nothing is masked that could be NaN.
"""
