"""Stand-in for this module of AMAGO, whose names it has."""

import drop_in_formulas


def symlog(x):
    return drop_in_formulas.symlog(x)


def symexp(x):
    return drop_in_formulas.symexp(x)
