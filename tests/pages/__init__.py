"""The pages that people read, run: every command in them, and what it prints compared with what they show."""
