"""CSV, Markdown and terminal output."""
