// The operations of early exit.
#pragma once

#define EXIT_OPS(X) X(response) X(alike) X(leave) X(others) X(keep) X(rejoin)
