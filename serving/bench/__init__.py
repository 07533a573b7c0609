"""The harness: a scenario makes a load, the load makes samples, samples make figures that come with an interval."""
