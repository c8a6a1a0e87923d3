"""Training adapters: the task protocol, PEFT adapters, the loop, and the run around them."""

from tercet.callable_module import make_callable

make_callable(__name__, "tercet.train.run:train_recipe")
