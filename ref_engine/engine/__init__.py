"""One thread that owns a model and serves many: a queue, slots, one pass over the weights for all of them.

job.py   what is asked and what is handed out
"""

from ref_engine.engine.job import EngineStopped, Job, QueueFull, Ticket, Timings, Usage

__all__ = ["EngineStopped", "Job", "QueueFull", "Ticket", "Timings", "Usage"]
