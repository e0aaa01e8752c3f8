// The program: everything is in command.c, so that tests and fuzzers can link it.
#include "cli/command.h"

int main(int argc, char **argv)
{
    return qn_cli_main(argc, argv);
}
