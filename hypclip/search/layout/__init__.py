"""The layout of a collection on a disk: the angle of every point, beside its true radius."""
