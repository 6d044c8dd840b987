"""Recurrent layers over (batch, time, features): RNN, GRU and LSTM, deep and bidirectional.

A recurrence is a function of data: the carry goes in and comes out, and `Weights` is all it needs.

    y, carry = lstm(x, weights)                                     # y: every step; carry: the last
    y, carry = gru(x, weights, carry, lengths=lengths)              # ragged rows, a carry handed on
    y, carries = deep(partial(rnn, activation="relu"), x, [below, above], dropout=0.1, key=key)
    y, carries = bidirectional(lstm, x, (forward, backward))
    carry = lstm_cell(x[:, 0], weights, carry)                      # one step, for decoding

The patterns of recurrent networks are uses of these:

- many-to-many, a result for each step: `y`. With an input and an output sequence of different
  lengths: the carry of one `lstm` (the encoder) is the carry that another starts from.
- many-to-one, a result for the sequence: the carry (its `hidden`, for an LSTM), which is that of
  the last valid step of each row.
- one-to-many, a sequence from one vector: the vector is the first carry, and each step's result is
  the next step's input: `jax.lax.scan` of a cell,

      def step(carry, _):
          carry = rnn_cell(carry @ readout, weights, carry)
          return carry, carry
      last, states = jax.lax.scan(step, first, length=10)           # states: (time, n, h)

Unlike attention, what a recurrence costs at each step does not grow with the steps before it.

Source: D2L 9.4-9.7 and 10.1-10.4.
"""

from jaxd2l.ops.recurrent.cells import LSTMCarry as LSTMCarry
from jaxd2l.ops.recurrent.cells import Weights as Weights
from jaxd2l.ops.recurrent.cells import gru_cell as gru_cell
from jaxd2l.ops.recurrent.cells import lstm_cell as lstm_cell
from jaxd2l.ops.recurrent.cells import rnn_cell as rnn_cell
from jaxd2l.ops.recurrent.sequence import gru as gru
from jaxd2l.ops.recurrent.sequence import lstm as lstm
from jaxd2l.ops.recurrent.sequence import rnn as rnn
from jaxd2l.ops.recurrent.stacks import bidirectional as bidirectional
from jaxd2l.ops.recurrent.stacks import deep as deep
