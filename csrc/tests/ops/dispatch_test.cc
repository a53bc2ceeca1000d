// Which form is chosen: the rule, for processors that this machine is not, and the environment variable.
#include <algorithm>
#include <fstream>
#include <initializer_list>
#include <set>
#include <string>
#include <string_view>

#include "ops/simd/dispatch.h"
#include "tests/ops/checks.h"

namespace twohot::ops::tests {
namespace {

[[maybe_unused]] bool yes() noexcept { return true; }
bool no() noexcept { return false; }
[[maybe_unused]] int asked = 0;
[[maybe_unused]] bool counted() noexcept { return ++asked > 0; }

std::string form(const Processor& p, std::string_view wanted = "") { return name_of(choose(p, wanted).capability); }

[[maybe_unused]] bool says(const Processor& p, std::string_view wanted, std::string_view part) {
  at = choose(p, wanted).reason;
  return at.find(part) != std::string::npos;
}

void test_rule() {
#ifdef TWOHOT_X86
  const Processor old{"GenuineIntel", false, false, false, false, no};
  const Processor client{"GenuineIntel", true, false, false, false, no};
  const Processor server{"GenuineIntel", true, true, false, false, no};
  const Processor cooper_lake{"GenuineIntel", true, true, true, false, no};
  const Processor sapphire_rapids{"GenuineIntel", true, true, true, true, yes};
  const Processor refused{"GenuineIntel", true, true, true, true, no};
  const Processor zen{"AuthenticAMD", true, true, true, false, no};
  const Processor other{"CentaurHauls", true, true, true, false, no};
  at = "by itself";
  CHECK(form(old) == "portable");
  CHECK(form(client) == "avx2");
  CHECK(form(server) == "avx512");
  CHECK(form(cooper_lake) == "avx512");
  CHECK(form(sapphire_rapids) == "amx");
  CHECK(form(refused) == "avx512");
  CHECK(form(zen) == "avx512_bf16");
  CHECK(form(other) == "avx512");
  CHECK(form({"AuthenticAMD", true, true, true, true, yes}) == "amx");
  CHECK(form({"GenuineIntel", true, true, false, true, yes}) == "avx512");
  CHECK(form({"AuthenticAMD", false, true, true, false, no}) == "portable");
  at = "where it is asked for";
  for (const char* name : {"portable", "avx2", "avx512", "avx512_bf16", "amx"})
    CHECK(form(sapphire_rapids, name) == name);
  CHECK(form(zen, "amx") == "avx512_bf16");
  CHECK(form(cooper_lake, "amx") == "avx512");
  CHECK(form(cooper_lake, "avx512_bf16") == "avx512_bf16");
  CHECK(form(client, "avx512") == "avx2");
  CHECK(form(zen, "none such") == "avx512_bf16");
  at = "permission";
  const Processor asking{"GenuineIntel", true, true, true, true, counted};
  CHECK(form(asking, "avx512_bf16") == "avx512_bf16");
  CHECK(form({"AuthenticAMD", true, true, true, false, counted}) == "avx512_bf16");
  CHECK(asked == 0);
  CHECK(form(asking) == "amx" && asked == 1);
  CHECK(says(old, "", "all that the processor has"));
  CHECK(says(cooper_lake, "", "bfloat16 is multiplied as float32"));
  CHECK(says(refused, "", "does not permit tiles"));
  CHECK(says(sapphire_rapids, "", "in tiles"));
  CHECK(says(zen, "", "faster than float32's"));
  CHECK(says(zen, "avx2", "asks for avx2"));
  CHECK(says(zen, "amx", "asks for amx, which does not run here"));
  CHECK(says(zen, "none such", "asks for none such, which there is not"));
#endif
  const Processor none{"", false, false, false, false, no};
#ifdef TWOHOT_ARM64
  const std::string best = "neon";
  at = "arm64";
  CHECK(form(none, "portable") == "portable");
  CHECK(says(none, "", "all that the processor has"));
#else
  const std::string best = "portable";
#endif
  at = "emulated tiles";
  CHECK(form(none) == best);
  CHECK(form(none, "amx_emulated") == (supported(Capability::amx_emulated) ? "amx_emulated" : best));
}

// What this processor is found to run is what Linux says of it.
void test_found() {
  at = "what Linux says";
  std::ifstream about("/proc/cpuinfo");
  std::set<std::string> words;
  for (std::string word; about >> word;) words.insert(word);
  if (words.empty()) return;
  [[maybe_unused]] const auto has = [&](std::initializer_list<const char*> all) {
    return std::all_of(all.begin(), all.end(), [&](const char* each) { return words.contains(each); });
  };
#ifdef TWOHOT_X86
  const bool avx2 = has({"avx2", "fma", "f16c"});
  const bool avx512 = avx2 && has({"avx512f", "avx512vl", "avx512bw", "avx512dq"});
  CHECK(supported(Capability::avx2) == avx2);
  CHECK(supported(Capability::avx512) == avx512);
  CHECK(supported(Capability::avx512_bf16) == (avx512 && has({"avx512_bf16"})));
  CHECK(!supported(Capability::amx) || has({"amx_tile", "amx_bf16"}));
#endif
  CHECK(supported(Capability::portable));
}

}  // namespace
}  // namespace twohot::ops::tests

int main() {
  using namespace twohot::ops::tests;
  test_rule();
  test_found();
  return in_each_form([](const char*) {}) + report();
}
