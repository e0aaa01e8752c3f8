// `quoin check golden`: the program's side of golden.h.
#ifndef QN_GOLDEN_COMMAND_H
#define QN_GOLDEN_COMMAND_H

#include "cli/command.h"

// Replays every folder of the command's arguments behind "golden"; returns the exit status.
int qn_check_golden(const qn_cli *cli);

#endif
