"""Programs that run as processes of their own: traffic, the bare copier, watchers, memory wires."""
