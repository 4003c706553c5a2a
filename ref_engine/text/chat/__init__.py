"""Chat templates: messages to prompt text, by a program that came with the model and is not trusted.

    template_for(metadata).render([{"role": "user", "content": "Hello"}])

The order to read in: template.py (compile and render), environment.py (what a template can reach), rewrite.py
(how it is made to pay), limits.py (with what), then filters, methods, operators, formatting, predicates and
values.
"""

from ref_engine.text.chat.capabilities import Capabilities, probe
from ref_engine.text.chat.default import CHATML, template_for, template_names, template_source
from ref_engine.text.chat.limits import Limits
from ref_engine.text.chat.template import ChatTemplate

__all__ = [
    "CHATML",
    "Capabilities",
    "ChatTemplate",
    "Limits",
    "probe",
    "template_for",
    "template_names",
    "template_source",
]
