"""Load a server with Locust, judge it against a goal and write a report; exit with 0 if it passes."""
