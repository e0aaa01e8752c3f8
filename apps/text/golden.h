// Replaying golden tokenizer folders: encodings, decodings and trainings that an independent
// implementation has computed.
#ifndef QN_TEXT_GOLDEN_H
#define QN_TEXT_GOLDEN_H

#include <quoin/base.h>

// What became of one case; detail says what differs, "" when nothing does.
typedef void (*qn_golden_token_line)(void *user, const char *name, bool passed, const char *detail);

// Whether `dir` itself holds tokenizer.json with encodings.json, or trainer_cases.json.
bool qn_golden_tokenizer_matches(const char *dir);

// Replays what is there. corpus_fingerprint.json is replayed when its corpus lies below `dir` or
// one of the directories above. QN_OK when every case could be run, passed or not.
qn_result qn_golden_tokenizer(const char *dir, qn_golden_token_line line, void *user);

#endif
