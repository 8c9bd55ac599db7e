"""The leaderboard's output: CSV files, the Markdown report and the terminal table."""
