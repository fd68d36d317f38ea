"""What the platform says about itself: names of metrics and attributes, trace context, metrics, audit records."""
