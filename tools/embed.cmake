# Makes a text a C string: cmake -DIN=page.html -DOUT=page.c -DNAME=qn_serve_page -P embed.cmake
file(READ ${IN} hex HEX)
string(REGEX REPLACE "([0-9a-f][0-9a-f])" "0x\\1," bytes "${hex}")
string(REGEX REPLACE "(................................................................................)" "\\1\n" bytes "${bytes}")
file(WRITE ${OUT} "// Made by tools/embed.cmake.\nextern const char ${NAME}[];\nconst char ${NAME}[] = {\n${bytes}0\n};\n")
