# Writes the header that names the revision being built; only when it changed.
#   cmake -DSOURCE=... -DOUT=... -P tools/commit.cmake
set(commit "unknown")
find_program(QN_GIT git)
if(QN_GIT)
  execute_process(COMMAND ${QN_GIT} describe --always --dirty --abbrev=10 --exclude=*
                  WORKING_DIRECTORY ${SOURCE} OUTPUT_VARIABLE found RESULT_VARIABLE failed
                  OUTPUT_STRIP_TRAILING_WHITESPACE ERROR_QUIET)
  if(NOT failed AND found MATCHES "^[0-9a-z.-]+$")
    set(commit ${found})
  endif()
endif()
file(CONFIGURE OUTPUT ${OUT} CONTENT "#define QN_COMMIT \"${commit}\"\n")
