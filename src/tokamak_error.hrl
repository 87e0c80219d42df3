%% SPDX-License-Identifier: Apache-2.0
%% Misuse raises, with an explanation (EEP 54) that tokamak_error words. Macros, because the error has
%% to be raised in the function that was called.

%% Kinds: what each argument should have been, see tokamak_error:kind().
-define(BADARG(Args, Kinds),
    erlang:error(badarg, Args, [
        {error_info, #{module => tokamak_error, cause => {badarg, Kinds}}}
    ])
).

-define(NOT_OWNER(Args),
    erlang:error(not_owner, Args, [
        {error_info, #{module => tokamak_error, cause => not_owner}}
    ])
).

%% Explanations: the text for each argument that is wrong.
-define(EXPLAINED(Args, Explanations),
    erlang:error(badarg, Args, [
        {error_info, #{module => tokamak_error, cause => {explained, Explanations}}}
    ])
).

%% What a check of arguments found wrong: see tokamak_error:cause().
-define(WRONG(Args, Cause),
    erlang:error(badarg, Args, [{error_info, #{module => tokamak_error, cause => Cause}}])
).

%% Guards: a time-out in milliseconds, and the id of a callback.
-define(IS_TIMEOUT(Value),
    (Value =:= infinity orelse
        (is_integer(Value) andalso Value >= 0 andalso Value =< 16#FFFFFFFF))
).
-define(IS_CALLBACK_ID(Value),
    (is_integer(Value) andalso Value >= 1 andalso Value =< 16#7FFFFFFFFFFFFFFF)
).
