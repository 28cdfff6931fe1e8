"""Devices joined by wires under one clock; still no kernel.

`config` is what a World is made of, as values; `host` and `switch` assemble devices
from elements; `wire` and `edge` are what carries frames between and at the ends; `layout` holds
all of these and turns them into others;
`world` runs it all.
"""
