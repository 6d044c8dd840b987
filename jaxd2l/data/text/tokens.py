"""A text cut into tokens: characters, or words and punctuation."""

import re
import string

from jaxd2l.data.text.corpus import check_text

# ASCII, inverted and angle marks, dashes, quotes and dots, the CJK comma and stop.
_MARKS = re.escape(string.punctuation) + "¡«»¿\u2010-\u2027\u2030-\u205e\u3001-\u3003"
_WORD = re.compile(rf"[^\s{_MARKS}]+(?:['’][^\s{_MARKS}]+)*|[{_MARKS}]")


def characters(text: str) -> list[str]:
    """The characters (code points) of a text, in order.

    Raises:
      TypeError: not a str.
      ValueError: a lone surrogate.

    Source: D2L 9.2.2.

    Example:
      >>> characters("a b")
      ['a', ' ', 'b']
    """
    return list(check_text(text, "characters: text"))


def words(text: str) -> list[str]:
    """The words of a text, in order; a punctuation mark is a token of its own, white space none.

    An apostrophe inside of a word belongs to it. Of text that went through `normalize` these are
    the words of `text.split()`. What has words without spaces between them (Chinese, Thai) needs
    characters or byte pairs.

    Raises:
      TypeError: not a str.
      ValueError: a lone surrogate.

    Source: D2L 9.2.2.

    Example:
      >>> words("It's late, he said.")
      ["It's", 'late', ',', 'he', 'said', '.']
    """
    return _WORD.findall(check_text(text, "words: text"))
