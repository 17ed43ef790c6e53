"""What expert caches hit and miss, and what that costs in time and saves in memory."""
