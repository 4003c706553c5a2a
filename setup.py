"""What pyproject.toml cannot say: the kernels, one object for each instruction set.

Each unit is compiled with the flags of its own instruction set and no others, so that one build runs everywhere and
picks at run time. Without a working C compiler the engine installs without kernels, says so, and runs in NumPy.
`app/` is installed under the name `ref_engine_app`: a package called `app` would collide with everybody's own.
"""

import os
import platform
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from setuptools import Extension, find_packages, setup
from setuptools.command.build_ext import build_ext
from setuptools.errors import BaseError, CCompilerError, CompileError

C = "ref_engine/kernels/c"
# products and sums round separately (no contraction); sqrt may be an instruction (no errno); without debugging
# information, which takes longer to compute than the code
COMMON = ["-std=c11", "-ffp-contract=off", "-fno-math-errno", "-g0"]
# the quantisers are vectors as written: -O3 takes three times as long to compile them, and what little it gains in
# small loops the cost model gives to -O2 too
LEVEL = {"ref_engine.kernels._native": ["-O3"], "ref_engine.kernels._quantize": ["-O2"]}
COST_MODEL = ["-fvect-cost-model=dynamic"]
# for `make sanitize`; what is inlined and unrolled takes minutes to compile with them
SANITIZERS = ["-fsanitize=address,undefined", "-fno-sanitize-recover=undefined"]
SANITIZED = ["-O1", "-g1", "-fno-omit-frame-pointer", *SANITIZERS] if os.environ.get("REF_ENGINE_SANITIZE") else []
COMPACT = [("REF_ENGINE_NO_INLINE", "1"), ("REF_ENGINE_NO_UNROLL", "")] if SANITIZED else []
AVX2 = ["-mavx2", "-mf16c", "-mfma"]
AVX512 = [*AVX2, "-mavx512f", "-mavx512bw", "-mavx512vl", "-mavx512dq"]
# of each extension: objects for any processor, and objects with the flags of an instruction set
PORTABLE = {
    "ref_engine.kernels._native": ["unit_baseline", "pack", "table", "cpu"],
    "ref_engine.kernels._quantize": ["quantize_unit_baseline", "quantize", "cpu"],
}
X86_UNITS = {
    "ref_engine.kernels._native": {
        "unit_avx2": AVX2,
        "unit_avx512": AVX512,
        "unit_avx512_vnni": [*AVX512, "-mavx512vnni"],
    },
    "ref_engine.kernels._quantize": {"quantize_unit_avx2": AVX2, "quantize_unit_avx512": AVX512},
}
NEON = ["-march=armv8.2-a+dotprod"]
ARM_UNITS = {"ref_engine.kernels._native": {"unit_neon": NEON}, "ref_engine.kernels._quantize": {}}
# of each family of processors: its names, the flags that the compiler must know, the macro that says so, the units
FAMILIES = [
    (("x86_64", "amd64"), [*AVX512, "-mavx512vnni"], "REF_ENGINE_X86", X86_UNITS),
    (("aarch64", "arm64"), NEON, "REF_ENGINE_NEON", ARM_UNITS),
]


class BuildKernels(build_ext):
    def build_extension(self, ext: Extension) -> None:
        try:
            self.compile_units(ext)
            super().build_extension(ext)
        except (BaseError, CCompilerError, OSError) as error:
            print(f"ref-engine: {ext.name} is not compiled, it runs in NumPy instead: {error}", file=sys.stderr)
            raise CompileError(str(error)) from error  # the extension is optional: setuptools goes on

    def compile_units(self, ext: Extension) -> None:
        """The C bodies as objects to link with the extension."""
        if not self.accepts([], link=True):
            raise CompileError(f"no working C compiler ({' '.join(self.compiler.compiler)})")
        openmp = ["-fopenmp"] if self.accepts(["-fopenmp"], link=True) else []
        if not openmp:
            print("ref-engine: the compiler has no OpenMP, kernels will run on one thread", file=sys.stderr)
        level = [*LEVEL[ext.name], *(COST_MODEL if self.accepts(COST_MODEL) else [])]
        macros, units = [*COMPACT], {name: [] for name in PORTABLE[ext.name]}
        for machines, flags, macro, more in FAMILIES:
            if platform.machine().lower() in machines and self.accepts(flags):
                macros.append((macro, "1"))
                units |= more[ext.name]

        def compile_unit(name: str) -> list[str]:
            return self.compiler.compile(
                [f"{C}/{name}.c"],
                output_dir=self.build_temp,
                macros=macros,
                include_dirs=[C],
                extra_postargs=[*level, *COMMON, *openmp, *units[name], *SANITIZED],
                depends=ext.depends,
            )

        with ThreadPoolExecutor(os.cpu_count()) as pool:  # each takes a core, and the largest a minute of it
            ext.extra_objects = [path for paths in pool.map(compile_unit, units) for path in paths]
        ext.extra_compile_args += [*openmp, *SANITIZED]
        ext.extra_link_args += [*openmp, *SANITIZED]

    def accepts(self, flags: list[str], link: bool = False) -> bool:
        """Whether the compiler takes these flags."""
        with tempfile.TemporaryDirectory() as folder:
            source = Path(folder, "probe.c")
            source.write_text("int main(void) { return 0; }\n")
            try:
                objects = self.compiler.compile([str(source)], output_dir=folder, extra_postargs=flags)
                if link:
                    self.compiler.link_executable(objects, str(Path(folder, "probe")), extra_postargs=flags)
            except (BaseError, CCompilerError, OSError):
                return False
        return True


def kernels() -> list[Extension]:
    """The two extensions; each is left out if it does not compile."""
    from Cython.Build import cythonize

    headers = sorted(str(p) for p in [*Path(C).glob("*.h"), *Path(C).parent.glob("*.pxi")])
    parts = [Extension(name, [name.replace(".", "/") + ".pyx"], include_dirs=[C], depends=headers) for name in PORTABLE]
    extensions = cythonize(parts, build_dir="build/cython")
    for extension in extensions:
        extension.optional = True  # cythonize makes them anew and would drop it
    return extensions


APP = ["ref_engine_app", *(f"ref_engine_app.{name}" for name in find_packages("app"))]

setup(
    packages=[*find_packages(include=["ref_engine", "ref_engine.*"]), *APP],
    package_dir={"ref_engine_app": "app"},
    package_data={
        "ref_engine": ["py.typed"],
        "ref_engine.archs.hf": ["defaults.json"],
        "ref_engine.gpu": ["cuda/*"],
        "ref_engine_app": ["py.typed"],
        "ref_engine_app.page": ["*.html", "*.svg", "css/*.css", "js/*.js", "js/*/*.js"],
        "ref_engine.kernels": ["_native.pyi", "_quantize.pyi"],
    },
    ext_modules=kernels(),
    cmdclass={"build_ext": BuildKernels},
)
