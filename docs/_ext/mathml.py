"""Conversion of the plain-text formulas of docstrings to MathML.

Plain text keeps the formulas readable in ``help()`` and on the command line. A block of lines is a
grid of cells, which are separated by two or more spaces. A cell is a sequence of expressions,
relations and words::

    x y              a product
    x[t, c]          subscripts
    sum_{c != y}     a sum; likewise prod_t, a product, and max_c, a maximum
    [c = y]          an Iverson bracket
    dl/dx[c]         a derivative
    a b / c          a fraction, whose numerator is the whole product
    (a b/c)          without spaces, within brackets or an exponent: an inline slash, which divides
                     only the factor before it
"""

import re
from contextlib import contextmanager
from html import escape

GREEK = {
    "alpha": "α",
    "beta": "β",
    "gamma": "γ",
    "delta": "δ",
    "eps": "ε",
    "sigma": "σ",
    "pi": "π",
}
FUNCTIONS = {"log", "exp", "cosh", "tanh", "max", "sign", "softplus"}
NAMES = {*GREEK, *FUNCTIONS, "margin", "loss", "perplexity", "bits"}
RELATIONS = {"<=": "≤", ">=": "≥", "!=": "≠", "<": "&lt;", ">": "&gt;"}
RELATIONS |= {sign: sign for sign in "=,:;∈∉"}
BIG_OPERATORS = {"sum": "∑", "prod": "∏", "max": "max"}
CLOSING = {"(": ")", "[": "]", "|": "|"}
SLASH = '<mo lspace="0" rspace="0">/</mo>'
SPACE = '<mspace width="0.17em"/>'

TOKEN = re.compile(
    r"""(?P<space>\s*)(?P<token>
        d(?P<numerator>[a-z])/d(?P<variable>[a-z])\b
      | (?P<mantissa>\d+(?:\.\d+)?)(?:e(?P<exponent>[+-]?\d+))?
      | (?P<operator>sum|prod|max)_(?:{(?P<range>[^}]*)}|(?P<index>\w))
      | (?P<word>[A-Za-z]\w*)(?P<prime>'?)
      | <=|>=|!=|\S)""",
    re.VERBOSE,
)


class Parenthesized(str):
    """Markup in parentheses, which are not needed in a fraction or an exponent."""

    inner = ""


def without_parentheses(markup):
    return markup.inner if isinstance(markup, Parenthesized) else markup


def row(*parts):
    return f"<mrow>{''.join(parts)}</mrow>"


def sign(character):
    return f"<mo>{character}</mo>"


def identifier(name):
    return f"<mi>{GREEK.get(name, name)}</mi>"


def product(factors):
    return factors[0] if len(factors) == 1 else row(SPACE.join(factors))


class Parser:
    """A recursive-descent parser. `self.next` is the next token, or None at the end."""

    def __init__(self, source):
        self.source = source
        self.in_bars = False
        self.depth = 0  # of brackets, subscripts and exponents
        self.tokens = TOKEN.finditer(source.strip())
        self.next = next(self.tokens, None)

    def sees(self, *tokens):
        return self.next is not None and self.next["token"] in tokens

    def is_adjacent(self, token):
        """Whether the token is next without a space before it, as in a call or a subscript."""
        return self.sees(token) and not self.next["space"]

    def take(self, *expected):
        if self.next is None or (expected and not self.sees(*expected)):
            raise ValueError(f"formula {self.source!r}: {expected} expected, not {self.next}")
        taken, self.next = self.next, next(self.tokens, None)
        return taken

    @contextmanager
    def deeper(self):
        self.depth += 1
        yield
        self.depth -= 1

    def cell(self):
        markup = self.sequence()
        if self.next is not None:
            raise ValueError(f"formula {self.source!r}: {self.next} has no opening bracket")
        return markup

    def sequence(self):
        """(words | relation | sum)*, up to a closing bracket."""
        parts = []
        while self.next is not None and not self.sees(")", "]", "}"):
            if self.in_bars and self.sees("|"):
                break
            if self.is_prose():
                words = [self.take()["token"]]
                while self.is_prose():
                    words.append(self.take()["token"])
                before, after = "&nbsp;" if parts else "", "&nbsp;" if self.next else ""
                parts.append(f"<mtext>{before}{escape(' '.join(words))}{after}</mtext>")
            elif self.sees(*RELATIONS):
                parts.append(sign(RELATIONS[self.take()["token"]]))
            else:
                parts.append(self.sum())
        return row(*parts)

    def is_prose(self):
        word = self.next and self.next["word"]
        return bool(word) and len(word) > 1 and word not in NAMES

    def sum(self):
        """[-] product ((+ | -) product)*"""
        parts = [sign("−")] if self.sees("-") and self.take() else []
        parts.append(self.product())
        while self.sees("+", "-"):
            parts.append(sign(self.take()["token"].replace("-", "−")))
            parts.append(self.product())
        return row(*parts)

    def product(self):
        """power (power | / power)*; leading derivatives are not part of a numerator."""
        derivatives, factors = [], []
        while not (derivatives or factors) or self.starts_factor():
            if self.next is None:
                raise ValueError(f"formula {self.source!r} is incomplete")
            is_derivative = self.next["numerator"] and not factors
            (derivatives if is_derivative else factors).append(self.power())
            if self.is_adjacent("/") and self.depth:
                self.take()
                factors[-1:] = [row(factors[-1], SLASH, self.power())]
            elif self.sees("/"):
                self.take()
                denominator = self.product() if self.next["operator"] else self.power()
                parts = map(without_parentheses, (product(factors), denominator))
                factors = [f"<mfrac>{''.join(parts)}</mfrac>"]
        return product(derivatives + factors)

    def starts_factor(self):
        if self.next is None or self.is_prose() or (self.in_bars and self.sees("|")):
            return False
        names = ("numerator", "mantissa", "operator", "word")
        return self.sees(*CLOSING) or any(self.next[name] for name in names)

    def power(self):
        """factor [^ factor]"""
        base = self.factor()
        if not self.sees("^"):
            return base
        self.take()
        with self.deeper():
            return f"<msup>{base}{without_parentheses(self.factor())}</msup>"

    def factor(self):
        if self.sees(*CLOSING):
            return self.brackets()
        token = self.take()
        if token["numerator"]:
            variable = self.subscript(identifier(token["variable"]))
            numerator = row(sign("∂"), identifier(token["numerator"]))
            return f"<mfrac>{numerator}{row(sign('∂'), variable)}</mfrac>"
        if token["mantissa"]:
            return number(token["mantissa"], token["exponent"])
        if token["operator"]:
            below = identifier(token["index"]) if token["index"] else index_range(token["range"])
            return f"<munder>{sign(BIG_OPERATORS[token['operator']])}{below}</munder>"
        if not token["word"]:
            raise ValueError(f"formula {self.source!r}: {token['token']} is not a factor")
        name = identifier(token["word"])
        if token["prime"]:
            name = f"<msup>{name}{sign('′')}</msup>"
        if self.is_adjacent("("):
            return self.subscript(row(name, self.brackets()))
        if token["word"] in FUNCTIONS:
            return row(name, SPACE, self.power())
        return self.subscript(name)

    def brackets(self):
        was_in_bars, opening = self.in_bars, self.take()["token"]
        self.in_bars = opening == "|"
        with self.deeper():
            inner = self.sequence()
        self.in_bars = was_in_bars
        self.take(CLOSING[opening])
        markup = row(sign(opening), inner, sign(CLOSING[opening]))
        if opening == "(":
            markup = Parenthesized(markup)
            markup.inner = inner
        return markup

    def subscript(self, markup):
        if not self.is_adjacent("["):
            return markup
        self.take()
        index = self.sequence()
        self.take("]")
        return f"<msub>{markup}{index}</msub>"


def index_range(text):
    """The range of a sum, a product or a maximum."""
    return Parser(text.replace(" not in ", " ∉ ").replace(" in ", " ∈ ")).cell()


def number(mantissa, exponent):
    if exponent is None:
        return f"<mn>{mantissa}</mn>"
    digits = f"<mn>{exponent.lstrip('+-')}</mn>"
    power = f"<msup><mn>10</mn>{row(sign('−') if exponent[0] == '-' else '', digits)}</msup>"
    return power if mantissa == "1" else row(f"<mn>{mantissa}</mn>", sign("·"), power)


def cells(lines):
    """(row, column, text) of each cell. An indented line starts below a cell of the line above."""
    starts_above = []
    for i, line in enumerate(lines):
        texts = [(match.start(), match.group()) for match in re.finditer(r"\S+(?: \S+)*", line)]
        skipped = sum(start < texts[0][0] for start in starts_above)
        starts_above = starts_above[:skipped] + [start for start, _ in texts]
        for j, (_, text) in enumerate(texts, start=skipped):
            yield i, j, text.rstrip(",;")


def grid(lines):
    """The HTML of consecutive lines: a grid of cells."""
    positioned = list(cells(lines))
    markup = []
    for i, j, text in positioned:
        is_single = sum(i == line for line, _, _ in positioned) == 1 and j == 0
        column = "1 / -1" if is_single else j + 1
        math = f"<math><mstyle displaystyle='true'>{Parser(text).cell()}</mstyle></math>"
        markup.append(f"<span style='grid-column: {column}'>{math}</span>")
    columns = 1 + max(j for _, j, _ in positioned)
    return f"<div class='formula' style='--columns: {columns}'>{''.join(markup)}</div>"
