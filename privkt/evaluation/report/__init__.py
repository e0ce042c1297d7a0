"""The page that shows usefulness and privacy side by side: `report.json` and `report.html`, both local."""
