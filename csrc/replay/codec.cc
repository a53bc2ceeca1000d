#include "replay/codec.h"

#include <dlfcn.h>

#include <initializer_list>
#include <limits>
#include <memory>
#include <stdexcept>
#include <string>

namespace twohot {
namespace {

// The level of Zstandard: its fastest regular one, for it is slow already beside LZ4 (bench.cases.replay_compression).
constexpr int zstd_level = 1;

void* load(const char* what, std::initializer_list<const char*> names) {
  for (const char* name : names) {
    if (void* library = ::dlopen(name, RTLD_NOW | RTLD_LOCAL)) return library;
  }
  throw std::runtime_error(std::string("a field asks for ") + what +
                           ", whose library is not installed (Debian and Ubuntu: apt install lib" +
                           (std::string(what) == "lz4" ? "lz4-1" : "zstd1") + ")");
}

template <typename Function>
Function* find(void* library, const char* name) {
  void* symbol = ::dlsym(library, name);
  if (symbol == nullptr) throw std::runtime_error(std::string("the library loaded for compression has no ") + name);
  return reinterpret_cast<Function*>(symbol);
}

// The functions of the libraries, as their headers declare them.
struct Lz4 {
  int (*bound)(int bytes);
  int (*compress)(const char* source, char* target, int bytes, int room);
  int (*decompress)(const char* source, char* target, int bytes, int room);
};

struct Zstd {
  std::size_t (*bound)(std::size_t bytes);
  std::size_t (*compress)(void* target, std::size_t room, const void* source, std::size_t bytes, int level);
  std::size_t (*decompress)(void* context, void* target, std::size_t room, const void* source, std::size_t bytes);
  unsigned (*is_error)(std::size_t code);
  void* (*create)();
  std::size_t (*destroy)(void* context);
};

const Lz4& lz4_functions() {
  static const Lz4 functions = [] {
    void* library = load("lz4", {"liblz4.so.1", "liblz4.1.dylib", "liblz4.dylib"});
    return Lz4{find<int(int)>(library, "LZ4_compressBound"),
               find<int(const char*, char*, int, int)>(library, "LZ4_compress_default"),
               find<int(const char*, char*, int, int)>(library, "LZ4_decompress_safe")};
  }();
  return functions;
}

const Zstd& zstd_functions() {
  static const Zstd functions = [] {
    void* library = load("zstd", {"libzstd.so.1", "libzstd.1.dylib", "libzstd.dylib"});
    using Size = std::size_t;
    return Zstd{find<Size(Size)>(library, "ZSTD_compressBound"),
                find<Size(void*, Size, const void*, Size, int)>(library, "ZSTD_compress"),
                find<Size(void*, void*, Size, const void*, Size)>(library, "ZSTD_decompressDCtx"),
                find<unsigned(Size)>(library, "ZSTD_isError"),
                find<void*()>(library, "ZSTD_createDCtx"),
                find<Size(void*)>(library, "ZSTD_freeDCtx")};
  }();
  return functions;
}

bool fits_int(std::size_t bytes) { return bytes <= static_cast<std::size_t>(std::numeric_limits<int>::max()) / 2; }

}  // namespace

Codec Codec::lz4() {
  lz4_functions();
  return {"lz4",
          [](std::size_t bytes) {
            return fits_int(bytes) ? static_cast<std::size_t>(lz4_functions().bound(static_cast<int>(bytes))) : 0;
          },
          [](const std::byte* source, std::size_t bytes, std::byte* target, std::size_t room) -> std::int64_t {
            if (!fits_int(bytes) || !fits_int(room)) return -1;
            return lz4_functions().compress(reinterpret_cast<const char*>(source), reinterpret_cast<char*>(target),
                                            static_cast<int>(bytes), static_cast<int>(room));
          },
          [](const std::byte* source, std::size_t bytes, std::byte* target, std::size_t room) -> std::int64_t {
            if (!fits_int(bytes) || !fits_int(room)) return -1;
            return lz4_functions().decompress(reinterpret_cast<const char*>(source), reinterpret_cast<char*>(target),
                                              static_cast<int>(bytes), static_cast<int>(room));
          }};
}

Codec Codec::zstd() {
  zstd_functions();
  return {"zstd", [](std::size_t bytes) { return zstd_functions().bound(bytes); },
          [](const std::byte* source, std::size_t bytes, std::byte* target, std::size_t room) -> std::int64_t {
            const std::size_t size = zstd_functions().compress(target, room, source, bytes, zstd_level);
            return zstd_functions().is_error(size) != 0 ? -1 : static_cast<std::int64_t>(size);
          },
          [](const std::byte* source, std::size_t bytes, std::byte* target, std::size_t room) -> std::int64_t {
            thread_local const std::unique_ptr<void, std::size_t (*)(void*)> context(zstd_functions().create(),
                                                                                     zstd_functions().destroy);
            if (context == nullptr) return -1;
            const std::size_t size = zstd_functions().decompress(context.get(), target, room, source, bytes);
            return zstd_functions().is_error(size) != 0 ? -1 : static_cast<std::int64_t>(size);
          }};
}

const Codec& Codec::named(std::string_view name) {
  if (name == "lz4") {
    static const Codec codec = lz4();
    return codec;
  }
  if (name == "zstd") {
    static const Codec codec = zstd();
    return codec;
  }
  throw std::invalid_argument("expected a compression of '', 'lz4' or 'zstd'; got '" + std::string(name) + "'");
}

std::size_t Codec::compress(const std::byte* source, std::size_t bytes, std::byte* target) const {
  const std::int64_t size = compress_(source, bytes, target, bound(bytes));
  if (size < 1)
    throw std::runtime_error(std::string(name_) + " could not compress " + std::to_string(bytes) + " bytes");
  return static_cast<std::size_t>(size);
}

bool Codec::decompress(const std::byte* source, std::size_t bytes, std::byte* target,
                       std::size_t target_bytes) const noexcept {
  return decompress_(source, bytes, target, target_bytes) == static_cast<std::int64_t>(target_bytes);
}

}  // namespace twohot
