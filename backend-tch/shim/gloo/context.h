// Declarations that c10d's header for Gloo refers to. libtorch comes without Gloo's own headers; what is
// declared here lives in its library, and nothing of it is called directly.
#pragma once

#include <chrono>
#include <memory>
#include <string>
#include <vector>

namespace gloo {

class Context {
 public:
  void setTimeout(std::chrono::milliseconds);
};

namespace transport {
class UnboundBuffer;
}

}  // namespace gloo
