"""What the server tells of itself: metrics, traces, times and logs."""
