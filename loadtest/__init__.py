"""Load on a server by Locust, and its judgement: plan, callers, figures, verdict, report."""
