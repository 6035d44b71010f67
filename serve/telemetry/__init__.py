"""Telemetry: metrics, traces, times and logs."""
