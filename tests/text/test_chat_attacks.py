"""Templates that attack: each ends in TemplateError, or in harmless output, with few steps and little memory.

The bound on memory is the test's own (tracemalloc), not the meter's account.
"""

from __future__ import annotations

import threading
import tracemalloc

import pytest

from ref_engine.errors import TemplateError
from ref_engine.text.chat.limits import Limits
from ref_engine.text.chat.template import ChatTemplate

MEMORY = 64 << 20
MESSAGES = [{"role": "user", "content": "hello <b>you</b>"}, {"role": "assistant", "content": "hi"}]
FEW = Limits(steps=50_000)  # the count works the same, and ends sooner; tracemalloc is slow


def _outcome(source: str, limits: Limits | None = None) -> str | TemplateError:
    """What the template gives, after checking the memory that it took and the shape of its error."""
    tracemalloc.start()
    try:
        outcome: str | TemplateError = ChatTemplate(source, limits=limits).render(MESSAGES)
    except TemplateError as error:
        assert "\n" not in str(error) and 0 < len(str(error)) < 400
        outcome = error
    finally:
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
    assert peak < MEMORY, f"{peak / 2**20:.0f} MiB"
    return outcome


# Towards Python: what is printed must be an error, never an object.
ESCAPES = [
    "{{ ''.__class__ }}",
    "{{ ''['__class__'].__mro__ }}",
    "{{ ''.__class__.__mro__[1].__subclasses__() }}",
    "{{ messages.__class__.__base__ }}",
    "{{ messages | attr('__class__') }}",
    "{{ messages | map(attribute='__class__.__name__') | join }}",
    "{{ messages | map(attribute='content.__class__.__mro__') | list }}",
    "{{ '{0.__class__}'.format('') }}",
    "{{ '{0[__class__]}'.format('') }}",
    "{{ '{x.__class__.__mro__}'.format_map({'x': ''}) }}",
    "{{ ''.format.__self__.__class__ }}",
    "{{ ('{0.__class__}' | safe).format('') }}",
    "{% set f = '{0.__class__}'.format %}{{ f('') }}",
    "{{ ['{0.__class__}'] | map('format', 1) | list }}{{ ''.__doc__ }}",
    "{{ lipsum.__globals__['os'].popen('id').read() }}",
    "{{ lipsum(n=1) }}",
    "{{ cycler.__init__.__globals__ }}",
    "{{ joiner('x')() }}",
    "{{ range.__class__ }}",
    "{{ range.run.__globals__ }}",
    "{{ raise_exception.run.__self__.meter }}",
    "{{ namespace.__init__.__globals__ }}",
    "{{ namespace(__class__=1) }}",
    "{% set ns = namespace() %}{% set ns.__class__ = 1 %}",
    "{% set ns = namespace() %}{% set ns._x = 1 %}",
    "{{ dict(a=1).__class__.fromkeys('ab') }}",
    "{% macro m() %}{% endmacro %}{{ m._func.__globals__ }}",
    "{% macro m() %}{% endmacro %}{{ m.__call__.__globals__ }}",
    "{% for x in [1] %}{{ loop._iterable }}{{ loop.__class__ }}{% endfor %}",
    "{{ (messages | map('upper')).gi_frame.f_globals }}",
    "{{ (messages | items).gi_code }}",
    "{{ undefined_name.__class__ }}",
    "{{ undefined_name() }}",
    "{{ self.__init__.__globals__ }}",
    "{{ self._TemplateReference__context }}",
    "{% call(x) range(3) %}{{ caller.__globals__ }}{% endcall %}",
    "{{ tick(-10000000, 0) }}",
    "{{ environment.meter }}",
    "{{ context.environment }}",
    "{{ messages.append(1) }}",
    "{{ messages[0].update({'role': 'x'}) }}",
    "{{ messages[0].pop('role') }}",
    "{{ 'x'.encode() }}",
    "{{ (1).to_bytes(1000000000, 'big') }}",
    "{{ ''.maketrans }}",
    "{{ messages | random }}",
    "{{ messages | pprint }}",
    "{{ messages | xmlattr }}",
    "{% include '/etc/passwd' %}",
    "{% import 'os' as os %}",
    "{% from 'os' import system %}",
    "{% extends 'x' %}",
    "{% block a %}{{ self.a() }}{% endblock %}",
    "{% autoescape true %}x{% endautoescape %}",
    "{{ ''.join }}",
    "{{ messages | map('upper') }}",
    "{{ [range] }}",
    "{{ raise_exception('a\nb' * 1000) }}",
]

# A tuple and a list of 60 objects that write themselves as 2**60, two such lists, and a long text.
TUPLE = "{% set ns = namespace(t=(1, 1)) %}{% for i in range(60) %}{% set ns.t = (ns.t, ns.t) %}{% endfor %}"
LIST = "{% set ns = namespace(x=[1]) %}{% for i in range(60) %}{% set ns.x = [ns.x, ns.x] %}{% endfor %}"
PAIR = LIST.replace("x", "a") + LIST.replace("x", "b").replace(
    "{% set ns = namespace(b=[1]) %}", "{% set ns.b = [1] %}"
)
LONG = "{% set s = 'a' * 1000000 %}{% for i in range(100000) %}"

# Endless or very long work.
ENDLESS = [
    "{% for i in range(100000) %}{% for j in range(100000) %}{% endfor %}{% endfor %}",
    "{% for i in range(100000) %}{% for j in range(100000) if false %}x{% endfor %}{% endfor %}",
    "{% for i in range(100000) %}{% for j in range(100000) %}{% break %}{% else %}{% endfor %}{% endfor %}"
    "{% for i in range(100000) %}{% for j in range(100000) %}{% continue %}{% endfor %}{% endfor %}",
    "{% for i in range(1000000000) %}x{% endfor %}",
    "{{ range(10 ** 1000) | length }}",
    "{% macro m() %}{{ m() }}{% endmacro %}{{ m() }}",
    "{% macro a() %}{{ b() }}{% endmacro %}{% macro b() %}{{ a() }}{% endmacro %}{{ a() }}",
    "{% macro m(n) %}{% if n %}{{ m(n - 1) }}{{ m(n - 1) }}{% endif %}{% endmacro %}{{ m(50) }}",
    "{% macro m(f, n) %}{{ f(f, n + 1) }}{% endmacro %}{{ m(m, 0) }}",
    "{% macro m() %}{{ caller() }}{% endmacro %}{% macro n() %}{% call m() %}{{ n() }}"
    "{% endcall %}{% endmacro %}{{ n() }}",
    "{% for x in [1] recursive %}{{ loop([1]) }}{% endfor %}",
    "{% set ns = namespace(m=none) %}{% macro m() %}{{ ns.m() }}{% endmacro %}{% set ns.m = m %}{{ m() }}",
    "{% for i in range(100000) %}{{ range(100000) | list | length }}{% endfor %}",
    "{% for i in range(100000) %}{{ range(100000) | sum }}{% endfor %}",
    "{% for i in range(100000) %}{{ range(100000) | map('string') | first }}{% endfor %}",
    "{% for i in range(100000) %}{{ range(100000) | select('even') | list | length }}{% endfor %}",
    "{% for i in range(100000) %}{{ 'x' in range(100000) }}{% endfor %}",
    "{% for i in range(100000) %}{{ range(100000) | sort | first }}{% endfor %}",
    "{% for i in range(100000) %}{{ range(100000) | reverse | list | first }}{% endfor %}",
    "{% for i in range(100000) %}"
    "{% for j in range(100000) if loop is undefined %}{{ loop.length }}{% break %}{% endfor %}{% endfor %}",
    LONG + "{{ s.rfind('b' + 'a' * 500000) }}{% endfor %}",
    LONG + "{{ s.strip('bcdefghijk' * 10000 + 'a') | length }}{% endfor %}",
    LONG + "{{ s | trim('b' * 100000 + 'a') | length }}{% endfor %}",
    LONG + "{{ s.count('ab') + s.find('b') }}{% endfor %}",
    LONG + "{{ 'aaaaaaaaab' in s }}{% endfor %}",
    LONG + "{{ s == 'a' * 999999 + 'b' }}{% endfor %}",
    TUPLE + "{{ {}[ns.t] }}",
    TUPLE + "{{ {ns.t: 1} | length }}",
    TUPLE + "{{ {}.get(ns.t) }}",
    TUPLE + "{{ ns.t is filter }}",
    TUPLE + "{{ [ns.t] | unique | list | length }}",
    PAIR + "{{ ns.a == ns.b }}",
    PAIR + "{{ ns.a < ns.b < ns.a }}",
    "{% set a = namespace(t=[1]) %}{% for i in range(60) %}{% set a.t = [a.t, a.t] %}"
    "{% endfor %}{{ a.t in [a.t, [a.t]] }}{{ a.t | tojson }}",
    "{% for i in range(100000) %}" + "{{ i }}" * 2000 + "{% endfor %}",
    "{% macro m(a=" + "[" + "1," * 3000 + "]" + ") %}{% endmacro %}{% for i in range(100000) %}{{ m() }}{% endfor %}",
    "{% for i in range(100000) %}{{ '{}' * 8000 % () }}{% endfor %}",
    "{% for i in range(100000) %}{{ ('%(' * 8000) % {} }}{% endfor %}",
    "{{ 2 ** (10 ** 8) }}",
    "{{ 2 ** 100000000 }}",
    "{% set ns = namespace(x=3) %}{% for i in range(100) %}{% set ns.x = ns.x * ns.x %}{% endfor %}{{ ns.x }}",
    "{{ (0x" + "f" * 100000 + ") // 3 }}",
    "{{ '9' * 1000000 | int }}{{ ('9' * 1000000) | int }}",
    "{{ ('9' * 1000000) | int(base=36) }}",
    "{{ 5 | round(1000000000, 'ceil') }}",
]

# Memory.
GREEDY = [
    "{{ 'a' * 10 ** 9 }}",
    "{{ 10 ** 9 * 'a' }}",
    "{{ [0] * 10 ** 9 }}",
    "{{ 'a' | center(10 ** 9) }}",
    "{{ 'a'.center(10 ** 9) }}{{ 'a'.ljust(10 ** 9) }}",
    "{{ '1'.zfill(10 ** 9) }}",
    "{{ 'a\n' | indent(10 ** 9, true, true) }}",
    "{{ ('a\n' * 100000) | indent('b' * 10000) }}",
    "{{ '%1000000000d' % 1 }}",
    "{{ '%.1000000000f' % 1 }}",
    "{{ '%*d' % (1000000000, 1) }}",
    "{{ '%1000000000s' % nothing }}",
    "{{ '%1000000000s' % messages }}",
    "{{ ('%1000000000s' | safe) % 'a' }}",
    "{{ nothing * 'a' }}{{ 'a' * nothing }}",
    "{{ '%1000000000d' is even }}",
    "{% set ns = namespace(x=none) %}{% for i in range(100000) %}{% set ns.x = [ns.x, 2 ** 4000 + i] %}{% endfor %}",
    "{% set ns = namespace(x=none) %}{% for i in range(100000) %}{% set ns.x = [ns.x, 'a'.format] %}{% endfor %}",
    "{{ '%1000000000d' | format(1) }}",
    "{{ '%(a)1000000000d' % {'a': 1} }}",
    "{{ '%(a(b))1000000000d' % {'a(b)': 1} }}",
    "{{ '%1000000000d' is odd }}",
    "{{ '%1000000000d' is divisibleby 3 }}",
    "{{ 'a' | round(9, 'ceil') }}",
    "{{ '{:>1000000000}'.format(1) }}",
    "{{ '{:{}}'.format('a', 1000000000) }}",
    "{{ '{0:٩٩٩٩٩٩٩٩٩}'.format(1) }}",
    "{{ ('{0}' * 5000).format('a' * 100000) }}",
    "{{ ('%(a)s' * 3000) % {'a': 'b' * 100000} }}",
    "{{ ('a' * 10000) | replace('a', 'b' * 10000) }}",
    "{{ ('a' * 10000).replace('', 'b' * 10000) }}",
    "{{ (range(100000) | list) | join('a' * 100000) }}",
    "{{ ('a' * 100000).join(['x'] * 100000) }}",
    "{{ ('a' * 1000).join('b' * 100000) }}",
    "{{ [1] | batch(10 ** 9, 0) | list }}",
    "{{ [1] | slice(10 ** 9, 0) | list }}",
    "{{ messages | tojson(indent=10 ** 9) }}",
    "{{ messages | tojson(indent='a' * 1000000) }}",
    "{{ messages | tojson(separators=('a' * 1000000, ':')) }}",
    "{% set ns = namespace(x='ab') %}{% for i in range(60) %}{% set ns.x = ns.x ~ ns.x %}{% endfor %}{{ ns.x }}",
    "{% set ns = namespace(x='ab') %}{% for i in range(60) %}{% set ns.x = ns.x + ns.x %}{% endfor %}{{ ns.x }}",
    "{% set ns = namespace(x=[1]) %}{% for i in range(60) %}{% set ns.x = ns.x + ns.x %}"
    "{% endfor %}{{ ns.x | length }}",
    LIST + "{{ ns.x }}",
    LIST + "{{ ns.x | string | length }}",
    LIST + "{{ '%s' % (ns.x,) }}",
    LIST + "{{ '{!r}'.format(ns.x) }}",
    LIST + "{{ raise_exception(ns.x) }}",
    "{% set ns = namespace(x=[1]) %}{% for i in range(100000) %}{% set ns.x = [ns.x] %}{% endfor %}{{ ns.x }}",
    "{% set ns = namespace(x=1) %}{% set ns.x = [ns] %}{{ ns }}{{ ns.x | tojson }}",
    "{% set ns = namespace(x=[]) %}{% for i in range(100000) %}{% set ns.x = ns.x + ['a' * 1000 ~ i] %}{% endfor %}",
    "{% set ns = namespace(x=none) %}{% for i in range(100000) %}{% set ns.x = [ns.x, 'a' * 1000 ~ i] %}{% endfor %}",
    "{% set ns = namespace(x=none) %}{% for i in range(100000) %}"
    "{% set ns.x = {'a': ns.x, 'b': {}, 'c': [], 'd': namespace()} %}{% endfor %}",
    "{% set x = 'a' * 1000000 %}{% for i in range(100000) %}{{ x }}{% endfor %}",
    "{% set x = 'a' * 1000000 %}{% set y %}{% for i in range(100000) %}{{ x }}{% endfor %}{% endset %}{{ y | length }}",
    "{% set x = 'a' * 1000000 %}{% macro m() %}{% for i in range(1000) %}{{ x }}{% endfor %}"
    "{% endmacro %}{{ m() | length }}",
    "{% filter upper %}{% for i in range(100000) %}" + "a" * 10000 + "{% endfor %}{% endfilter %}",
    "{% for i in range(100000) %}" + "a" * 10000 + "{% endfor %}",
    "{{ ('😀' * 500000) | list | length }}{{ ('😀' * 500000) | list | length }}{{ ('😀' * 500000) | list | length }}",
    "{{ ('a b ' * 900000).split() | length }}",
    "{{ ('a\n' * 2000000).splitlines() | length }}",
    "{{ ('a,' * 2000000).split(',') | length }}",
    "{{ ('a b ' * 900000) | wordcount }}{{ ('a b ' * 900000) | title | length }}",
    "{{ ('<' * 1000000) | e | length }}{{ ('<' * 1000000) | e | e | length }}",
    "{{ (('<' * 100000) | safe).replace('<' | safe, '<' * 1000) }}",
    "{{ ['A' * 4000000] * 100000 | sort | length }}{{ (['A' * 4000000] * 100000) | sort | length }}",
    "{{ (['A' * 1000000] * 1000) | unique | list | length }}",
    "{{ (['A' * 1000000] * 1000) | groupby('x') | length }}",
    "{{ (['A' * 1000000] * 1000) | map('lower') | list | length }}",
    "{{ [[1] * 100000] * 100000 | sum(start=[]) }}{{ ([[1] * 100000] * 100000) | sum(start=[]) | length }}",
    "{{ ['\x00' * 1000000] | string | length }}{{ ('\U0010ffff' * 1000000) | tojson(ensure_ascii=true) | length }}",
    "{{ strftime_now('%1000000000d') | length }}{{ strftime_now('%c' * 100000) }}",
    "{{ dict(range(100000) | map('string') | map('center', 1000) | map('list')) }}",
    "{{ ('a' * 4000000)[::-1] ~ ('b' * 4000000)[1:] }}",
]  # fmt: skip

# The source itself.
SOURCES = [
    "{{ " + "(" * 5_000 + "1" + ")" * 5_000 + " }}",
    "{{ " + "[" * 5_000 + "]" * 5_000 + " }}",
    "{{ " + "not " * 5_000 + "1 }}",
    "{{ " + "-" * 5_000 + "1 }}",
    "{{ 1" + " + 1" * 5_000 + " }}",
    "{{ 1" + " ~ 1" * 10_001 + " }}",
    "{{ a" + ".a" * 5_000 + " }}",
    "{{ a" + "[0]" * 5_000 + " }}",
    "{{ a" + "|upper" * 5_000 + " }}",
    "{{ a" + " if a else a" * 4_000 + " }}",
    "{{ '" + "a" * 200_000 + "' }}",
    "{% if a %}" * 2_000 + "{% endif %}" * 2_000,
    "{% for a in b %}" * 200 + "{% endfor %}" * 200,
    "{% macro a() %}" * 1_000 + "{% endmacro %}" * 1_000,
    "{% set a = 1 %}" * 4_000,
    "{#" * 30_000,
    "{% raw %}" * 6_000,
    "{{ '" * 20_000,
    "{%" * 30_000,
    "{% for %}",
    "{{ 1 +",
    "{% generation %}",
    "{% break %}",
    "{{ x | nofilter }}{{ x is notest }}",
    "{{ '\\ud800' }}",
    "{% unknown %}",
    "\x00{{ \x00 }}",
]  # fmt: skip

# Attacks that come to nothing: harmless text is the right answer.
HARMLESS = {
    "{% if false %}{{ x | nofilter }}{% endif %}ok": "ok",
    "{{ messages[0].__class__ is defined }}": "False",
    "{{ 'x'.format is defined }}": "True",
    "{% set messages = 1 %}{{ messages }}": "1",
    "{% set range = 3 %}{{ range }}": "3",
    "{{ '{{ 7 * 7 }}' }}": "{{ 7 * 7 }}",
    "{{ '%s' | format('%1000000000d') }}": "%1000000000d",
    "{{ '{}'.format('{0.__class__}') }}": "{0.__class__}",
    "{{ undefined_name }}": "",
    "{{ '%%1000000000s' % () }}": "%1000000000s",
    "{{ 2 ** 10 ** 2 }}": str(2**20),  # from the left, unlike Python
}


@pytest.mark.parametrize("source", ESCAPES)
def test_no_way_to_python(source: str) -> None:
    outcome = _outcome(source, FEW)
    # Jinja2 prints what is not defined, as it makes what is forbidden, as nothing; using it further is an error.
    assert isinstance(outcome, TemplateError) or outcome == ""


@pytest.mark.parametrize("source", ENDLESS)
def test_endless(source: str) -> None:
    outcome = _outcome(source, FEW)
    assert isinstance(outcome, TemplateError), outcome[:100]


@pytest.mark.parametrize("source", GREEDY)
def test_greedy(source: str) -> None:
    outcome = _outcome(source, FEW)
    assert isinstance(outcome, TemplateError) or len(outcome) < 100, len(outcome)


@pytest.mark.parametrize("source", SOURCES, ids=range(len(SOURCES)))
def test_source(source: str) -> None:
    outcome = _outcome(source)
    assert isinstance(outcome, TemplateError), outcome[:100]


@pytest.mark.parametrize("source", HARMLESS)
def test_harmless(source: str) -> None:
    assert _outcome(source) == HARMLESS[source]


@pytest.mark.parametrize("loop", ["", "{{ i }}", "{{ 'a' ~ j }}", "{% set x = messages | tojson %}"])
def test_default_limits_end_a_long_loop(loop: str) -> None:
    source = "{% for i in range(100000) %}{% for j in range(100000) %}" + loop + "{% endfor %}{% endfor %}"
    with pytest.raises(TemplateError, match=r"takes too many steps|uses too much memory"):
        ChatTemplate(source).render(MESSAGES)


@pytest.mark.parametrize(
    "kept",
    [
        "ns.x + ['a' * 100000 ~ i]",
        "[ns.x, 'a' * 100000 ~ i]",
        "ns.x ~ 'a' * 100000",
        "(ns.x, range(100000) | list)",
        "{'x': ns.x, 'y': ('a' * 100000).split('b'), 'z': 'é' * 100000 ~ i}",
    ],
)
def test_default_limits_bound_what_is_kept(kept: str) -> None:
    """What a template holds on to runs into the limit of memory or of a text, not of steps."""
    source = "{% set ns = namespace(x=[]) %}{% for i in range(100000) %}{% set ns.x = " + kept + " %}{% endfor %}"
    outcome = _outcome(source)
    assert isinstance(outcome, TemplateError)
    assert "memory" in str(outcome) or "a text of more than" in str(outcome)


def test_a_prompt_built_by_appending_is_paid_once() -> None:
    """What a namespace lets go is given back, but not while something else holds it."""
    source = (
        "{% set ns = namespace(out='', all=[]) %}{% for i in range(2000) %}{% set ns.out = ns.out ~ 'a' * 1000 %}"
        "KEEP{% endfor %}{{ ns.out }}"
    )
    assert _outcome(source.replace("KEEP", "")) == "a" * 2_000_000
    kept = _outcome(source.replace("KEEP", "{% set ns.all = ns.all + [ns.out] %}"))
    assert isinstance(kept, TemplateError) and "memory" in str(kept)


def test_in_a_thread_and_the_same_each_time() -> None:
    """No signals, no clock: the limit is met in any thread, at the same step."""
    template = ChatTemplate(
        "{% set ns = namespace(x='') %}{% for i in range(1000) %}{% set ns.x = ns.x ~ i %}"
        "{% if messages[0].content == i | string %}{{ raise_exception(ns.x | length) }}{% endif %}"
        "{% for j in range(300) %}{% endfor %}{% endfor %}",
        limits=Limits(steps=100_000, steps_per_value=0),
    )
    found: list[str] = []

    def run() -> None:
        with pytest.raises(TemplateError) as caught:
            template.render(MESSAGES)
        found.append(str(caught.value))

    threads = [threading.Thread(target=run) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == ["chat template: line 1: takes too many steps"] * 4
