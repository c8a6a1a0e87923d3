"""Speech: engines, word errors, training windows. Not a plug-in yet: it joins `tercet.modalities` with its plan."""
