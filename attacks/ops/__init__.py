"""Threat models, norms, projections, losses and random numbers: functions on tensors."""
