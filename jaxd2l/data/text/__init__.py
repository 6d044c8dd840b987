"""Text: a corpus, its tokens, their vocabulary, and the windows and labelled lines to learn from.

From a book to batches:

    corpus = text.read_text("book.txt")                  # or text.english()
    codec = text.Codec.train(corpus, "character", normalize=True)
    data = text.windows(codec.encode(corpus), steps=32)  # a Dataset, targets shifted by one
    codec.decode(data.inputs[0])
"""

from jaxd2l.data.text.codec import Codec as Codec
from jaxd2l.data.text.corpus import english as english
from jaxd2l.data.text.corpus import normalize as normalize
from jaxd2l.data.text.corpus import read_text as read_text
from jaxd2l.data.text.labelled import Example as Example
from jaxd2l.data.text.labelled import labelled_dataset as labelled_dataset
from jaxd2l.data.text.labelled import read_labelled as read_labelled
from jaxd2l.data.text.ngrams import NGramCounts as NGramCounts
from jaxd2l.data.text.ngrams import NGramModel as NGramModel
from jaxd2l.data.text.ngrams import most_ngrams as most_ngrams
from jaxd2l.data.text.ngrams import ngram_counts as ngram_counts
from jaxd2l.data.text.ngrams import table_sizes as table_sizes
from jaxd2l.data.text.pairs import BytePairs as BytePairs
from jaxd2l.data.text.smoothing import AddK as AddK
from jaxd2l.data.text.smoothing import MaximumLikelihood as MaximumLikelihood
from jaxd2l.data.text.smoothing import Smoothing as Smoothing
from jaxd2l.data.text.smoothing import WithShorter as WithShorter
from jaxd2l.data.text.smoothing import WithUnigram as WithUnigram
from jaxd2l.data.text.tokens import characters as characters
from jaxd2l.data.text.tokens import words as words
from jaxd2l.data.text.vocab import Vocab as Vocab
from jaxd2l.data.text.windows import adjacent as adjacent
from jaxd2l.data.text.windows import partition as partition
from jaxd2l.data.text.windows import windows as windows
