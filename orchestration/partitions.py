"""The one partition: a plate. The organelle is the first part of an asset's key."""

import dagster as dg

__all__ = ["plates"]

plates = dg.DynamicPartitionsDefinition(name="plates")
