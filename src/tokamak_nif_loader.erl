%% SPDX-License-Identifier: Apache-2.0
%% @doc Finds a native library and checks its version before anybody loads it.
%%
%% A library that was built for another version of its Erlang module must be refused before
%% `erlang:load_nif/2': once loading has begun it registers its resource types, and a refusal
%% after that leaves them dangling. So the version is read from the file, where the library holds
%% the text `tokamak_abi_version=N'.
%% @private
-module(tokamak_nif_loader).

-export([check/2, check/3, loaded/3, ensure_loaded/0]).

%% Why the library was refused: whoever runs `-on_load' functions only logs it.
-define(REFUSED, {?MODULE, refused}).
-define(MARKER, <<"tokamak_abi_version=">>).

%% @doc Checks tokamak's own library `Name', see {@link check/3}.
-spec check(atom(), pos_integer()) ->
    {ok, file:filename()} | {error, {tokamak_nif, string()}}.
check(Name, Expected) ->
    check(priv_dir(), Name, Expected).

%% @doc Returns the path to load, if the library `Name' in `Dir' was built for version `Expected'.
%%
%% The module of the NIFs calls this in its `-on_load' function and then `erlang:load_nif/2': the
%% VM lets no other module do that.
-spec check(file:filename(), atom(), pos_integer()) ->
    {ok, file:filename()} | {error, {tokamak_nif, string()}}.
check(Dir, Name, Expected) ->
    Path = filename:join(Dir, Name),
    File = Path ++ ".so",
    Wanted = integer_to_binary(Expected),
    case version(File) of
        {ok, Wanted} -> {ok, Path};
        {ok, Found} -> refuse(File, "is stale: it has version ~ts, needed is ~b", [Found, Expected]);
        none -> refuse(File, "is not a library of tokamak", []);
        {error, enoent} -> refuse(File, "is missing", []);
        {error, Reason} -> refuse(File, "cannot be read: ~ts", [file:format_error(Reason)])
    end.

%% @doc Says what is wrong after `erlang:load_nif/2', if something is.
%%
%% The VM keeps a library in memory for good, so it may have loaded what was in the same file before.
-spec loaded(file:filename(), ok | {error, {atom(), string()}}, fun(() -> boolean())) ->
    ok | {error, {tokamak_nif, string()}}.
loaded(Path, ok, IsRight) ->
    case IsRight() of
        true -> ok;
        false -> refuse("~ts.so was replaced; this VM still has the one before. Start a new VM", [Path])
    end;
loaded(Path, {error, {_Kind, Reason}}, _IsRight) ->
    refuse(Path ++ ".so", "cannot be loaded: ~ts", [Reason]).

%% @doc Loads tokamak's library, if it is not loaded; the error is what a user is to be told.
-spec ensure_loaded() -> ok | {error, {tokamak_nif, string()} | atom()}.
ensure_loaded() ->
    case code:ensure_loaded(tokamak_nif) of
        {module, tokamak_nif} -> ok;
        {error, on_load_failure} -> {error, persistent_term:get(?REFUSED, on_load_failure)};
        {error, _} = Error -> Error
    end.

%% The directory of this module is the last resort: the VM knows an application by the name of its
%% directory, and a directory on the code path may have any.
priv_dir() ->
    case code:priv_dir(tokamak) of
        {error, bad_name} ->
            Ebin = filename:dirname(code:which(?MODULE)),
            filename:join(filename:dirname(Ebin), "priv");
        Dir ->
            Dir
    end.

version(File) ->
    case file:read_file(File) of
        {ok, Library} -> version_after(binary:match(Library, ?MARKER), Library);
        {error, _} = Error -> Error
    end.

version_after(nomatch, _Library) ->
    none;
version_after({Start, Length}, Library) ->
    <<_:Start/binary, _:Length/binary, Tail/binary>> = Library,
    {match, [Version]} = re:run(Tail, "^[0-9]*", [{capture, first, binary}]),
    {ok, Version}.

refuse(File, Format, Args) ->
    Help = ". Build it: rebar3 compile, or mix deps.compile --force tokamak; both need cargo"
           " (https://rustup.rs)",
    refuse("~ts " ++ Format ++ Help, [File | Args]).

refuse(Format, Args) ->
    Reason = {tokamak_nif, lists:flatten(io_lib:format(Format, Args))},
    persistent_term:put(?REFUSED, Reason),
    {error, Reason}.
