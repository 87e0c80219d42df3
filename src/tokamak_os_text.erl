%% SPDX-License-Identifier: Apache-2.0
%% @doc Texts as the operating system takes them: bytes as they are, characters as file names are encoded.
%% @private
-module(tokamak_os_text).

-export([encode/1]).

%% @doc The bytes of a text. A NUL would end it: that is an error, and so is what is no text.
-spec encode(term()) -> {ok, binary()} | error.
encode(Text) when is_binary(Text) ->
    without_nul(Text);
encode(Text) when is_list(Text) ->
    try unicode:characters_to_binary(Text, unicode, file:native_name_encoding()) of
        Encoded when is_binary(Encoded) -> without_nul(Encoded);
        _ -> error
    catch
        error:badarg -> error
    end;
encode(_) ->
    error.

without_nul(Text) ->
    case binary:match(Text, <<0>>) of
        nomatch -> {ok, Text};
        _ -> error
    end.
