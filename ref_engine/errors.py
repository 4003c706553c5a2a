"""The errors that callers may want to tell apart. Each message is one line that names the thing at fault."""


class RefEngineError(Exception):
    """Base of all errors about input: a file, a name, an option. Commands print it and exit with status 2."""


class GGUFError(RefEngineError):
    """A file that is not a GGUF file, is damaged, or holds something this reader does not know."""


class ModelError(RefEngineError):
    """A well-formed GGUF file that does not describe a model that can be run: tensor or key missing, wrong shape."""


class ContextFull(RefEngineError):
    """More tokens than the cache has room for."""


class DeviceMemoryError(RefEngineError):
    """The GPU has no room for what is named. What had been taken for it is free again, and the process goes on."""


class TokenizerError(RefEngineError):
    """A vocabulary that cannot be used, or an id outside it."""


class ConvertError(RefEngineError):
    """A checkpoint that cannot be converted: a file missing or damaged, or an architecture without a recipe."""


class TemplateError(RefEngineError):
    """A chat template that does not parse, fails, or asks for more than it may have."""


class GrammarError(RefEngineError):
    """A schema, expression or grammar that cannot be enforced, or a token that it does not allow."""


class StoreError(RefEngineError):
    """A model name that is not known, or a store or download that cannot be used."""
