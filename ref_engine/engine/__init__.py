"""One thread that owns a model and serves many: a queue, slots, one pass over the weights for all of them.

job.py      what is asked and what is handed out     slots.py   sequences and what they remember
waiting.py  whose turn it is                         engine.py  the thread and its steps
"""

from ref_engine.engine.engine import BatchModel, Engine, Load
from ref_engine.engine.job import EngineStopped, Job, QueueFull, Ticket, Timings, Usage

__all__ = ["BatchModel", "Engine", "EngineStopped", "Job", "Load", "QueueFull", "Ticket", "Timings", "Usage"]
